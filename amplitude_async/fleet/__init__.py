"""Past one machine: producers hand over to a log, relays deliver from it."""
