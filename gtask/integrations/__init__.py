"""Other projects that gtask meets, each in a module of its own, which is imported by who uses that project."""
