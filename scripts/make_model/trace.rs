//! Traces of routing: which experts each layer of a model chose, token by token. Text: a line `layers experts tokens`, then
//! for each token a line per layer with how many experts it chose and their numbers.

pub struct Trace {
    pub layers: u32,
    pub experts: u32,
    /// [token][layer]: the experts chosen.
    pub tokens: Vec<Vec<Vec<u32>>>,
}

impl Trace {
    pub fn read(path: &str) -> Result<Trace, String> {
        let text = std::fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))?;
        Trace::parse(&text).ok_or_else(|| format!("{path}: this is not a trace of routing"))
    }

    fn parse(text: &str) -> Option<Trace> {
        let numbers = |line: &str| line.split_whitespace().map(|n| n.parse().ok()).collect::<Option<Vec<u32>>>();
        let mut lines = text.lines().map(numbers);
        let head = lines.next()??;
        let &[layers, experts, tokens] = &head[..] else { return None };
        let mut line = || -> Option<Vec<u32>> {
            let numbers = lines.next()??;
            let (&count, chosen) = numbers.split_first()?;
            (chosen.len() == count as usize && chosen.iter().all(|&e| e < experts)).then(|| chosen.to_vec())
        };
        let tokens = (0..tokens).map(|_| (0..layers).map(|_| line()).collect()).collect::<Option<Vec<_>>>()?;
        Some(Trace { layers, experts, tokens })
    }

    /// Experts that a layer chooses for a token.
    #[allow(dead_code)]
    pub fn used(&self) -> u32 {
        self.tokens.iter().flatten().map(|chosen| chosen.len() as u32).max().unwrap_or(0)
    }
}

/// An element of the code of a token: +1 or −1. The codes of all tokens below `width`, a power of two, are orthogonal.
#[allow(dead_code)]
pub fn code(token: u32, element: u32) -> f32 {
    if (token & element).count_ones().is_multiple_of(2) { 1.0 } else { -1.0 }
}

/// The token that stands for the trace's token `t`: the first ones of a vocabulary are no text.
#[allow(dead_code)]
pub const fn token_of(t: u32) -> u32 {
    FIRST_TOKEN + t
}

#[allow(dead_code)]
pub const FIRST_TOKEN: u32 = 300;
