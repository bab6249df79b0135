"""Released model folders. A package (`lastresort_models`) only so that the wheel can carry them; nothing here is code."""
