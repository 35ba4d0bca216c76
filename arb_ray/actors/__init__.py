"""Ray actors: thin mailboxes around the engine. The only package that imports ray."""
