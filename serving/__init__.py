"""The BentoML service, its request and response types, and the packaging of champions.

service: The BentoML service: `serving.api.routes` in BentoML's hands.
answers/: Answers to one customer, to many, and micro-batches.
api/: The HTTP side: routes, access, middleware, OpenAPI.
bento/: Packaging champions into a bento, and serving it.
champions/: The packaged models and their vectors.
live/: The champions in service, and swapping them.
monitor/: Records of served answers for monitoring.
requests/: Requests: decoded, checked, bounded.
"""
