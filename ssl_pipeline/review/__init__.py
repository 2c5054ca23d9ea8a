"""Review by people: what readers are asked, the page that asks it, and the record of answers."""
