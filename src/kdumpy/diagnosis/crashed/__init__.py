"""Reading the crash: from the faulting instruction to the member of a structure that was bad."""
