"""The text that models are compared on by default: our own, in words that tokenizers know."""

PASSAGE = """\
Once upon a time there was a little girl named Anna who lived in a small house near the sea. \
Every morning she ran down to the water to look for shells. She had a big box for them under her \
bed, and in the evening she put the new ones next to the old ones and gave each of them a name.

One day Anna found a shell that was not like the others. It was blue, and when she held it to \
her ear it did not sound like the sea. It sounded like a voice. "Please help me," said the \
voice. "I am lost, and I want to go home."

Anna was surprised, but she was not afraid. "Where is your home?" she asked. "Behind the tall \
rock," said the voice, "where the water is warm and the fish are yellow." So Anna took the shell \
in both hands and walked along the beach. The wind was strong and the sand got into her shoes, \
but she did not stop.

Behind the tall rock there was a little pool. Yellow fish swam in it, and at the bottom there \
were many blue shells. Anna put her shell into the water, very slowly. "Thank you," said the \
voice, and all the other shells began to sing. It was the most beautiful song that Anna had ever \
heard.

When she came home, her mother asked why she was so late. Anna told her everything. Her mother \
smiled and said, "It is good to help someone who is lost." That night Anna did not open her box. \
She lay in her bed and listened to the sea, and she was happy.
"""
