"""Everything that receives HTTP.

`app.build_app` puts middleware and routes together, `middleware.boundary` is the one place where errors become responses,
`streaming` writes events to the socket, `api/` has one thin file per surface (`api/routes.py`: every URL on one screen),
`run` starts, drains and, with more than one worker, supervises.
Not in here: what an answer is or costs; that is the pipeline's.
"""
