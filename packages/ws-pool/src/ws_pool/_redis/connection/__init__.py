"""One shared, pipelined connection: encoding, replies in order, reconnects."""
