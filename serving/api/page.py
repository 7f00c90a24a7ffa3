"""The page of the API's documentation, with BentoML's copy of the Swagger viewer."""

from __future__ import annotations

# BentoML's own page counts its readers with a script from elsewhere; this one is the same viewer without it. That
# viewer's pale greens and greys are too faint on white, and it knows no dark mode.
STYLE = """
body { margin: 0; }
.swagger-ui .servers, .swagger-ui .servers-title { display: none; }
.swagger-ui .info .title small { background: #4c5560; }
.swagger-ui .info .title small.version-stamp { background: #3d6000; }
.swagger-ui .info a, .swagger-ui .info .url { color: #1f5f99; }
.swagger-ui .markdown code, .swagger-ui .renderedMarkdown code { color: #6d1ab8; }
.swagger-ui .opblock.opblock-post .opblock-summary-method { background: #17703f; }
.swagger-ui .opblock.opblock-get .opblock-summary-method { background: #1d5fa8; }
.swagger-ui .btn.authorize { border-color: #17703f; color: #17703f; }
.swagger-ui .btn.authorize svg { fill: #17703f; }
.swagger-ui .model-box button, .swagger-ui .json-schema-2020-12-expand-deep-button,
.swagger-ui .json-schema-2020-12__attribute--primary { color: #45505c; }
@media (prefers-color-scheme: dark) { html { background: #fff; filter: invert(.9) hue-rotate(180deg); } }
"""
PAGE = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="UTF-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Journey Lab</title>
<link rel="icon" href="./static_content/favicon-light-32x32.png">
<link rel="stylesheet" type="text/css" href="./static_content/swagger-ui.css">
<style>{STYLE}</style>
</head>
<body>
<div id="swagger-ui"></div>
<script src="./static_content/swagger-ui-bundle.js"></script>
<script>SwaggerUIBundle({{url: "./openapi.json", dom_id: "#swagger-ui", validatorUrl: null}})</script>
</body>
</html>
"""
