"""Send messages, in this order: claims, payload, calls, outcomes, breaker, results; the worker drives them."""
