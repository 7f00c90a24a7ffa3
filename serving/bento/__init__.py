"""Packaging champions into a bento, and serving it.

package: Champions → one bento that stands alone: code, models, pinned packages, labels, and the proof that
    it is the same.
replay: Replay recorded requests through the service's code, without HTTP; run in the folder whose code is
    meant.
serve: Start a bento: on this machine's own address, or on another where tokens say who may call.
warm_up: Load every model and answer invented requests by every way, so that the first caller waits for
    nothing.
"""
