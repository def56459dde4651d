"""Values in memory that both sides of a unix socket have: sealed files without a name, sent from process to process."""
