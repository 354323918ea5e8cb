"""What a step, the input and many processes cost here, beside what a user would run instead: the verb `umif bench`.

Figures are ratios taken side by side in one run; what they were taken on is written beside them.
"""
