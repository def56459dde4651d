"""The tests that other projects have of themselves, run with gtask in the place of what they usually use."""
