"""What the gateway tells about itself: the record of one request, the JSON log, the Prometheus metrics.

Main types: `record.RequestRecord` (filled on the way through), `metrics.Metrics`, `log.configure`.
Never in here: the text of a prompt or an answer, an API key.
"""
