"""
What a control plane may say to a proxy: the only thing that both packages share.

A proxy defines what it can obey, so the contract lives here.  `resources` holds the frozen specs,
`wire` turns them into JSON and back, strictly, and `discovery` holds the conversation itself.
"""
