"""The canonical request, events, usage and deployment: the words in which all rooms talk.

Every public schema (`wire`) translates to and from these, every backend (`backends`) takes and gives these.
Main types: `request.InferenceRequest`, `events.Event`, `usage.Usage`, `deployment.Deployment`.
This room does no I/O and imports nothing but `errors`.
"""
