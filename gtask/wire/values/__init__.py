"""Values beyond msgpack's own."""
