"""The champions in service, and swapping them.

live: The champions in service now: another bento's can take their place while requests are answered.
swap: Put the champions of another bento in service, under load, without a gap; and back again the same way.
"""
