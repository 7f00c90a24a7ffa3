"""The BentoML service: champions answer requests about customers.

Imports go one way: requests, champions, answers, then live and monitor, then api, then service; bento packages them.

answers/: Answers to one customer, to many, and micro-batches.
api/: The HTTP side: the table of routes, access, metrics, documentation.
bento/: Packaging champions into a bento, serving it, swapping its champions.
champions/: The packaged models and the search for look-alikes.
live/: The champions in service at this moment.
monitor/: Records of served answers for monitoring.
requests/: Requests: parsed, checked, limited.
service: The BentoML service: the routes in front of BentoML's own.
"""
