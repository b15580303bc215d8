"""The command line, `firstdraft`: thin commands that parse, call a room below, and print.

Main: `main.main`, a group that imports a command only when it runs. Nothing is decided here, and nothing here is
imported by any other room.
"""
