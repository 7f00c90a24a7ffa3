"""Packaging champions into a bento, serving it, and swapping its champions.

package: Champions into one bento that needs nothing else, with the proof that its answers are the recorded ones.
replay: Recorded requests through the code of a bento, without HTTP.
serve: A bento started on this machine's address, or on others with tokens.
swap: The champions of another bento put in service, under load, without a gap.
"""
