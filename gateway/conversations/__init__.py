"""Conversations that clients go on with by naming an earlier response, kept in the store until they expire.

Main type: `kept.Conversations`; `going_on` puts it to use. Each belongs to its tenant, and to nobody else. Not in here:
what a request or a response looks like (`wire`), and answers that are kept to be given again (`cache`).
"""
