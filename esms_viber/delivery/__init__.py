"""Send messages, in this order: claims, payload, calls, outcomes, results; the worker drives them."""
