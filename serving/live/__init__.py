"""The champions in service at this moment.

live: The champions in service; another bento's can take their place while requests are answered.
"""
