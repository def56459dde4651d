"""What several tests need: processes, programs, servers, documents, and what other projects bring along."""
