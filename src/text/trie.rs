//! The tokens that a text begins with.

use crate::order;
use std::collections::VecDeque;

use super::vocabulary::{NONE, Vocabulary};
use super::work;
use crate::error::{Error, Result};
use crate::sys::heap;

/// A tree of tokens by their bytes. Nodes stand in the order of their depth, the children of one beside each other.
pub(super) struct Trie {
    /// The byte that leads to a node from its parent.
    bytes: Vec<u8>,
    /// Where the children of a node start; they end where the next node's start.
    children: Vec<u32>,
    /// The token that ends at a node.
    tokens: Vec<u32>,
}

/// A place in the tree, reached by some bytes.
#[derive(Clone, Copy)]
pub(super) struct Node(u32);

impl Trie {
    pub const ROOT: Node = Node(0);

    /// Of tokens with different texts, none empty.
    pub fn new(vocabulary: &Vocabulary, mut entries: Vec<u32>) -> Result<Trie> {
        const WHAT: &str = "a tree of tokens";
        order::sort(&mut entries, &mut |a, b| vocabulary.text(a).cmp(vocabulary.text(b)));
        let (mut bytes, mut children, mut tokens) = (vec![0], vec![], vec![]);
        // The entries below each node that is still to be entered, and how many bytes they share.
        let mut below = VecDeque::from([(0, entries.len(), 0)]);
        while let Some((mut from, to, depth)) = below.pop_front() {
            let ends = from < to && vocabulary.text(entries[from]).len() == depth;
            heap::push(&mut tokens, if ends { entries[from] } else { NONE }, WHAT)?;
            from += usize::from(ends);
            heap::push(&mut children, bytes.len() as u32, WHAT)?;
            while from < to {
                let byte = vocabulary.text(entries[from])[depth];
                let count = entries[from..to].partition_point(|&token| vocabulary.text(token)[depth] == byte);
                heap::push(&mut bytes, byte, WHAT)?;
                below.try_reserve(1).map_err(|_| Error::out_of_memory(WHAT))?;
                below.push_back((from, from + count, depth + 1));
                from += count;
            }
        }
        heap::push(&mut children, bytes.len() as u32, WHAT)?;
        for list in [&mut children, &mut tokens] {
            list.shrink_to_fit();
        }
        bytes.shrink_to_fit();
        Ok(Trie { bytes, children, tokens })
    }

    /// The node that a byte leads to.
    pub fn step(&self, node: Node, byte: u8) -> Option<Node> {
        work::step();
        let from = self.children[node.0 as usize] as usize;
        let to = self.children[node.0 as usize + 1] as usize;
        let child = self.bytes[from..to].binary_search(&byte).ok()?;
        Some(Node((from + child) as u32))
    }

    /// The token whose text leads to a node.
    pub fn token(&self, node: Node) -> Option<u32> {
        Some(self.tokens[node.0 as usize]).filter(|&token| token != NONE)
    }

    pub fn memory_bytes(&self) -> u64 {
        (self.bytes.capacity() + (self.children.capacity() + self.tokens.capacity()) * size_of::<u32>()) as u64
    }
}
