"""The HTTP side of the service; a new route is one entry in `routes`.

access: Bearer tokens; without any, the service answers this machine alone.
application: The ASGI application of the routes, and the dispatcher in front of BentoML.
asgi: Types of ASGI, and a sentence as an answer.
metrics: Counts and times of requests for Prometheus.
route: What a route is: schemas, limits, access, example; and the routes of one set of champions.
routes: The table of routes.
schemas: JSON schemas of requests and answers, for the OpenAPI document.
warm_up: A request by every way before the service is ready.
"""
