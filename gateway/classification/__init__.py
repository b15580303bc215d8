"""Labels of a request: what kind of data it carries, so that constraints can hold it where it belongs.

A label is added by the client, by the tenant's policy or by a classifier, and removed by none. Main function:
`labels.gather`.
Pure: no I/O, and never the text itself in a result.
"""
