"""One thin file per public surface: decode, call the pipeline, encode. `routes.add_routes` lists every URL."""
