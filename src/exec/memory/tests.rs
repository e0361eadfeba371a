use super::*;
use crate::kernel::attention::{AttentionParameters, BLOCK, attend_layer};
use crate::kernel::testing::noise;
use std::collections::HashMap;

const CONTEXT: usize = 700;
const HEADS: usize = 2;
const DIM: usize = 32;

fn rows(seed: u64, positions: std::ops::Range<usize>, len: usize) -> Vec<f32> {
    positions.flat_map(|p| noise(seed + 1000 * p as u64, len)).collect()
}

/// A memory of one layer for each kind, whose windowed layers have room for so many positions.
fn memory(kinds: &[(Kind, usize)], kv_type: KvType) -> SequenceMemory {
    let mut words = 0;
    let mut layers = Vec::new();
    for &(kind, capacity) in kinds {
        let heads = if let Kind::Compressed { .. } = kind { 1 } else { HEADS };
        let (key_dim, value_dim) = if heads == 1 { (3 * DIM, 2 * DIM) } else { (DIM, DIM) };
        let layer = Layer { kind, kv_type, capacity, first: 0, start: words, heads, key_dim, value_dim };
        words += layer.position_words() * capacity;
        layers.push(layer);
    }
    SequenceMemory::new(MemoryLayout {
        layers,
        context: CONTEXT,
        words: words as u64,
        undo_words: 0,
        states: Vec::new(),
    })
    .unwrap()
}

const PARAMETERS: AttentionParameters = AttentionParameters { scale: 0.3, ..AttentionParameters::PLAIN };

/// What tokens `positions` see in a layer, after their keys and values were added.
fn take(
    m: &mut SequenceMemory,
    layer: usize,
    window: Option<usize>,
    isa: Isa,
    pool: &Pool,
    positions: std::ops::Range<usize>,
) -> Vec<u32> {
    let l = m.layers()[layer];
    let keys = rows(1, positions.clone(), l.heads * l.key_dim);
    let values: Vec<f32> = match l.kind {
        Kind::Compressed { value_start } => {
            keys.chunks(l.key_dim).flat_map(|key| key[value_start..].to_vec()).collect()
        }
        _ => rows(2, positions.clone(), l.heads * l.value_dim),
    };
    m.append(pool, isa, layer, positions.start, &keys, &values);
    let heads = 2 * l.heads;
    let q = rows(3, positions.clone(), heads * l.key_dim);
    let mut out = vec![f32::NAN; positions.len() * heads * l.value_dim];
    let parameters = AttentionParameters { window, ..PARAMETERS };
    attend_layer(pool, isa, &m.view(layer), &parameters, heads, positions.start, &q, &mut out);
    out.iter().map(|x| x.to_bits()).collect()
}

fn take_all(
    m: &mut SequenceMemory,
    layer: usize,
    window: Option<usize>,
    isa: Isa,
    pool: &Pool,
    step: usize,
) -> Vec<u32> {
    (0..CONTEXT).step_by(step).flat_map(|p| take(m, layer, window, isa, pool, p..CONTEXT.min(p + step))).collect()
}

#[test]
fn a_window_gives_the_bits_of_the_whole_however_it_is_filled() {
    let pool = Pool::new(2).unwrap();
    for isa in Isa::available() {
        for kv_type in [KvType::F16, KvType::Q8_0] {
            for window in [1, 2, 63, 64, 100, 200] {
                let mut whole = memory(&[(Kind::Full, CONTEXT)], kv_type);
                let want = take_all(&mut whole, 0, Some(window), isa, &pool, CONTEXT);
                for step in [1, 3, 7, 64] {
                    let kinds = [(Kind::Windowed { window }, window.next_multiple_of(BLOCK) + BLOCK)];
                    let mut windowed = memory(&kinds, kv_type);
                    let got = take_all(&mut windowed, 0, Some(window), isa, &pool, step);
                    assert!(got == want, "{isa:?}, {kv_type:?}, a window of {window}, {step} at once");
                    assert!(windowed.layers()[0].first > 0);
                }
            }
        }
    }
}

#[test]
fn compressed_rows_give_the_bits_of_keys_and_values_kept_apart() {
    let pool = Pool::new(1).unwrap();
    let isa = Isa::detect();
    for kv_type in [KvType::F16, KvType::Q8_0] {
        let compressed = Layer { ..memory(&[(Kind::Compressed { value_start: DIM }, CONTEXT)], kv_type).layers()[0] };
        let apart = Layer { kind: Kind::Full, ..compressed };
        assert!(apart.position_words() > compressed.position_words());
        let mut outs = HashMap::new();
        for (name, layer) in [("compressed", compressed), ("apart", apart)] {
            let words = (layer.position_words() * CONTEXT) as u64;
            let layout =
                MemoryLayout { layers: vec![layer], context: CONTEXT, words, undo_words: 0, states: Vec::new() };
            let mut m = SequenceMemory::new(layout).unwrap();
            let (keys, q) = (rows(1, 0..90, 3 * DIM), rows(3, 0..90, 8 * 3 * DIM));
            let values: Vec<f32> = keys.chunks(3 * DIM).flat_map(|key| key[DIM..].to_vec()).collect();
            m.append(&pool, isa, 0, 0, &keys, &values);
            let mut out = vec![f32::NAN; 90 * 8 * 2 * DIM];
            attend_layer(&pool, isa, &m.view(0), &PARAMETERS, 8, 0, &q, &mut out);
            assert!(out.iter().all(|x| x.is_finite()));
            outs.insert(name, out);
        }
        assert_eq!(outs["compressed"], outs["apart"]);
    }
}

fn mixed(capacity: usize) -> SequenceMemory {
    memory(&[(Kind::Full, CONTEXT), (Kind::Windowed { window: 50 }, capacity)], KvType::F16)
}

fn fill(m: &mut SequenceMemory, pool: &Pool, positions: std::ops::Range<usize>, step: usize) {
    for p in positions.clone().step_by(step) {
        for (layer, window) in [(0, None), (1, Some(50))] {
            take(m, layer, window, Isa::detect(), pool, p..positions.end.min(p + step));
        }
    }
}

fn next(m: &mut SequenceMemory, pool: &Pool, at: usize) -> Vec<u32> {
    [(0, None), (1, Some(50))]
        .into_iter()
        .flat_map(|(layer, window)| take(m, layer, window, Isa::detect(), pool, at..at + 20))
        .collect()
}

#[test]
fn truncation_is_refused_where_the_window_is_gone_and_says_what_is_possible() {
    let pool = Pool::new(1).unwrap();
    let mut m = mixed(128);
    fill(&mut m, &pool, 0..300, 10);
    let fewest = m.fewest_tokens(300);
    assert!(fewest > 1 && fewest <= 290, "the last chunk can be taken back: {fewest}");
    let error = m.truncate(fewest - 1).unwrap_err();
    assert!(error.message().contains(&format!("or {fewest} and more")), "{error}");
    m.truncate(fewest).unwrap();
    let got = next(&mut m, &pool, fewest);
    let mut fresh = mixed(CONTEXT);
    fill(&mut fresh, &pool, 0..fewest, 10);
    assert_eq!(got, next(&mut fresh, &pool, fewest));
    m.truncate(0).unwrap();
    assert_eq!(m.fewest_tokens(300), 1);
    fill(&mut m, &pool, 0..60, 10);
    assert_eq!(next(&mut m, &pool, 60), {
        let mut fresh = mixed(CONTEXT);
        fill(&mut fresh, &pool, 0..60, 60);
        next(&mut fresh, &pool, 60)
    });
}

#[test]
fn snapshots_bring_back_what_was_dropped() {
    let pool = Pool::new(1).unwrap();
    for held in [Held::Droppable, Held::Everything] {
        let mut m = mixed(128);
        fill(&mut m, &pool, 0..130, 10);
        let snapshot = m.snapshot(held, 130).unwrap();
        let want = next(&mut m, &pool, 130);
        fill(&mut m, &pool, 130..600, 10);
        assert!(m.may_drop(600, 100) && m.truncate(130).is_err());
        m.put_back(&snapshot);
        assert_eq!(next(&mut m, &pool, 130), want, "{held:?}");
    }
    let m = mixed(CONTEXT);
    let table = 2 * size_of::<std::ops::Range<usize>>() as u64;
    assert_eq!(m.snapshot_bytes(Held::Droppable, 600), table, "nothing can be dropped");
}

#[test]
fn rows_are_saved_loaded_and_copied_between_memories_of_other_sizes() {
    let pool = Pool::new(1).unwrap();
    for kv_type in [KvType::F16, KvType::Q8_0] {
        let kinds = |capacity| [(Kind::Full, CONTEXT), (Kind::Windowed { window: 50 }, capacity)];
        let mut m = memory(&kinds(300), kv_type);
        fill(&mut m, &pool, 0..400, 20);
        let mut saved: Vec<Vec<u16>> = Vec::new();
        m.save(400, |row| {
            saved.push(match row {
                Row::Halves(halves) => halves.to_vec(),
                Row::Bytes(bytes) => bytes.iter().map(|&byte| u16::from(byte)).collect(),
                Row::Floats(states) => {
                    assert!(states.is_empty());
                    return Ok(());
                }
            });
            Ok(())
        })
        .unwrap();
        let firsts: Vec<usize> = m.layers().iter().map(|l| l.first).collect();
        let want = {
            let mut copy = memory(&kinds(300), kv_type);
            copy.copy_from(&m, 400);
            next(&mut copy, &pool, 400)
        };
        for capacity in [128, 300, CONTEXT] {
            let mut loaded = memory(&kinds(capacity), kv_type);
            let mut left = saved.iter();
            loaded
                .load(400, &firsts, |row| {
                    if let RowMut::Floats([]) = row {
                        return Ok(());
                    }
                    let from = left.next().unwrap();
                    match row {
                        RowMut::Halves(halves) => halves.copy_from_slice(from),
                        RowMut::Bytes(bytes) => bytes.iter_mut().zip(from).for_each(|(to, &from)| *to = from as u8),
                        RowMut::Floats(_) => unreachable!(),
                    }
                    Ok(())
                })
                .unwrap();
            assert!(left.next().is_none());
            assert_eq!(next(&mut loaded, &pool, 400), want, "loaded, room for {capacity}");
            let mut copied = memory(&kinds(capacity), kv_type);
            copied.copy_from(&m, 400);
            assert_eq!(next(&mut copied, &pool, 400), want, "copied, room for {capacity}");
        }
        assert_eq!(next(&mut m, &pool, 400), want);
    }
}
