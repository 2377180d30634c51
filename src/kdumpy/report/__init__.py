"""From a `Diagnosis` to what people and programs read."""
