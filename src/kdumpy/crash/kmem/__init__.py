"""The answers of `kmem`, one file a question; `kdumpy.crash.commands.kmem` chooses among them."""
