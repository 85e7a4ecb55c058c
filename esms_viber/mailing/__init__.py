"""Send one text to many phones: read the list, check each line, queue the good ones."""
