"""Labels of a request: what kind of data it carries, so that constraints can hold it where it belongs.

A label is added by the client, by the tenant's policy or by the classifier, and removed by none. Main functions and
types: `labels.gather`; `classifier.Classifier`, made once for each policy, and its `Found`; `texts.texts_of`, all that
a backend would read.
Pure: no I/O, and never the text itself, or a part of it, in a result.
"""
