//! Drafts from the text itself: where the last tokens stood before, what followed them there may follow them again.

use super::pace::Certainty;

/// Tokens that must have stood before, at least.
const SHORTEST: usize = 2;

/// Longer agreement says no more.
const LONGEST: usize = 12;

/// Up to `most` tokens that may follow `text`, and how sure that is: what followed the latest of the places whose tokens
/// agree with the end of `text` for longest. None where even [`SHORTEST`] tokens never stood before.
///
/// Looks at the whole of `text` once, which takes microseconds where a pass takes milliseconds. What is drafted replaces
/// what is in `out`, which has room for `most` tokens.
pub fn draft(text: &[i32], most: usize, out: &mut Vec<i32>) -> Option<Certainty> {
    out.clear();
    let last = text.last()?;
    let (mut best, mut best_agrees) = (0, 0);
    for end in (1..text.len()).rev() {
        // `end` is where the tokens that followed begin.
        if text[end - 1] != *last {
            continue;
        }
        let before = text[..end].iter().rev().zip(text.iter().rev());
        let agrees = before.take(LONGEST).take_while(|(a, b)| a == b).count();
        if agrees > best_agrees {
            (best, best_agrees) = (end, agrees);
            if agrees == LONGEST {
                break;
            }
        }
    }
    if best_agrees < SHORTEST {
        return None;
    }
    let certainty = match best_agrees {
        ..=3 => Certainty::Low,
        4..=7 => Certainty::Fair,
        _ => Certainty::High,
    };
    for i in best..best + most {
        // Where the place is near the end, what is drafted goes on as it began.
        out.push(text.get(i).copied().unwrap_or_else(|| out[i - text.len()]));
    }
    Some(certainty)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drafted(text: &[i32], most: usize) -> Option<(Vec<i32>, Certainty)> {
        let mut out = vec![77];
        draft(text, most, &mut out).map(|certainty| (out, certainty))
    }

    #[test]
    fn what_followed_the_same_tokens_before_is_drafted() {
        assert_eq!(drafted(&[1, 2, 3, 4, 5, 2, 3], 2), Some((vec![4, 5], Certainty::Low)));
        assert_eq!(drafted(&[1, 2, 3, 4, 5, 2, 3], 4), Some((vec![4, 5, 2, 3], Certainty::Low)));
    }

    #[test]
    fn the_longest_agreement_wins_and_of_equals_the_latest() {
        let text = [8, 9, 1, 2, 3, 50, 1, 2, 3, 60, 7, 2, 3, 70, 8, 9, 1, 2, 3];
        assert_eq!(drafted(&text, 1), Some((vec![50], Certainty::Fair)));
        assert_eq!(drafted(&[1, 2, 50, 1, 2, 60, 1, 2], 1), Some((vec![60], Certainty::Low)));
    }

    #[test]
    fn nothing_is_drafted_where_nothing_repeats() {
        for text in [&[][..], &[1], &[1, 2, 3, 4], &[1, 2, 9, 2]] {
            assert_eq!(drafted(text, 4), None, "{text:?}");
        }
    }

    #[test]
    fn what_comes_again_and_again_goes_on() {
        assert_eq!(drafted(&[5; 6], 3), Some((vec![5; 3], Certainty::Fair)));
        assert_eq!(drafted(&[1, 2, 3, 1, 2, 3, 1, 2], 5), Some((vec![3, 1, 2, 3, 1], Certainty::Fair)));
    }
}
