"""What a user gives, checked at the door: features, targets, weights and parameters become rows on the backend.

Files: samples (the one door for rows), features, targets, labels, gaps, columns, sparse, parameters, placement.
They may import the equations, `backend` and `checks`, and nothing that trains.
"""
