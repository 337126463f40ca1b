"""PUBLIC DOUBLES: fakes of the seams, for our tests and yours. Each says that it is fake."""
