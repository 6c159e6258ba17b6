"""Files that are sent together, once nothing new has come for a while or a marker says so."""
