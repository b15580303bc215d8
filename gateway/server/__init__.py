"""Everything that receives HTTP.

`app.build_app` puts middleware and routes together, `middleware.boundary` is the one place where errors become
responses, `streaming` writes events to the socket, `api/` has one thin file per surface (`api/routes.py`: every URL on
one screen), `run` starts and drains, `workers` supervises where there is more than one.
Not in here: what an answer is or costs; that is the pipeline's.
"""
