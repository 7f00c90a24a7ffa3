"""The BentoML service, its request and response types, and the packaging of champions."""
