"""The language of AnyEvent::Task's peers."""
