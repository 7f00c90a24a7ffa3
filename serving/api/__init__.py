"""The HTTP side: routes, access, middleware, OpenAPI.

access: Who may call the service: bearer tokens from a file or the environment; without any, this machine
    alone.
front: What a request meets in BentoML before the routes: figures for Prometheus, the gate, a limit, and the
    short way.
openapi: The service's OpenAPI document, with examples that a stranger can send as they stand.
routes: The routes of the service as an ASGI application: reading requests, answering in JSON, refusing in
    one sentence.
"""
