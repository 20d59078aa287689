"""The web page: a client of the gRPC API, one process for all visitors."""
