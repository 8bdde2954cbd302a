"""The golden corpus: answers computed once by a second path, kept in files, and compared with everything since."""
