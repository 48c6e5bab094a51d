//! A real client over loopback: the protocol as `facts/finnhub.md` tells it, and the ledger.
