"""struct page: how a kernel lays it out, where each one lies, and what it says of its page."""
