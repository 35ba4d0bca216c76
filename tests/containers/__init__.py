"""
``make container-test``: the real image and the real compose file on a real Docker engine.

The engine, its containers and their networks live in namespaces of this test, so that their end
is the end of all of it. ``machine`` makes and leaves those, ``images`` builds, ``stack`` speaks
compose, ``scenario`` says what must hold, ``leaks`` looks for secrets.
"""
