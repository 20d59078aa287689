"""The event log: build, sign, emit, spool, read back, join, dead-letter. Kafka is spoken to here alone."""
