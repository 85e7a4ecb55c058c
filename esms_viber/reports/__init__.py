"""Learn what became of messages: parse what eSMS reports, by callback or when asked, and apply it."""
