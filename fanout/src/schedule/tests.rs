use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// How many turns may go by between two turns of a tenant that has work in a lane.
pub(crate) fn turns_max(lane: Lane, tenants: usize) -> usize {
    match lane {
        // Each other tenant once as fresh and once as settled, and before each of those the urgent
        // lane's run.
        Lane::Usual => 2 * tenants * (URGENT_TURNS as usize + 1),
        // Each other tenant once, and between them a turn of the usual lane now and then.
        Lane::Urgent => tenants + tenants / URGENT_TURNS as usize + 1,
    }
}

/// Turns that went by since each tenant's last, by tenant and lane, for those that have work.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    waited: BTreeMap<(u32, Lane), usize>,
    tenants_max: usize,
}

impl Patience {
    /// A turn is over. `working` are the tenants that have work, by lane.
    pub(crate) fn note(&mut self, turn: Turn, working: &[(u32, Lane)], tenants: usize) {
        self.tenants_max = self.tenants_max.max(tenants);
        self.waited.retain(|held, _| working.contains(held));
        for held in working {
            *self.waited.entry(*held).or_default() += 1;
        }
        self.waited.remove(&(turn.index, turn.lane));
        for ((index, lane), waited) in &self.waited {
            let max = turns_max(*lane, self.tenants_max);
            assert!(
                *waited <= max,
                "tenant {index} is starved in {lane:?}: {waited} turns"
            );
        }
    }
}

/// Tenants whose passes are numbers of writes.
struct World {
    ring: Ring,
    links: Links,
    tenants: Vec<Tenant>,
    /// Writes that are left, by pass.
    left: BTreeMap<u32, u32>,
    next_pass: u32,
    patience: Patience,
}

impl World {
    fn new(count: u32) -> Self {
        let tenant = |number| {
            let id = TenantId::new(&format!("t{number}")).unwrap();
            Tenant::new(id, Edition::Free)
        };
        Self {
            ring: Ring::default(),
            links: Links::default(),
            tenants: (0..count).map(tenant).collect(),
            left: BTreeMap::new(),
            next_pass: 0,
            patience: Patience::default(),
        }
    }

    fn add(&mut self, index: u32, lane: Lane, writes: u32) {
        let tenant = &mut self.tenants[index as usize];
        let passes = &mut tenant.line(lane).passes;
        passes.push_back(&mut self.links, self.next_pass);
        self.left.insert(self.next_pass, writes);
        self.next_pass += 1;
        self.ring.queue(index, lane, tenant);
    }

    /// Serves a slice of at most so many writes of so many bytes; answers whose it was.
    fn slice(&mut self, writes_max: u32, bytes: usize) -> Option<Turn> {
        let turn = self.ring.front()?;
        let tenant = &mut self.tenants[turn.index as usize];
        self.ring.begin(turn, tenant);
        for _ in 0..writes_max {
            if tenant.line(turn.lane).is_spent() {
                break;
            }
            let Some(Work::Pass(pass)) = tenant.next_work(turn.lane) else {
                break;
            };
            tenant.line(turn.lane).spend(bytes);
            let left = self.left.get_mut(&pass).unwrap();
            *left -= 1;
            if *left == 0 {
                tenant.line(turn.lane).passes.pop_front(&mut self.links);
            }
        }
        let end = self.ring.end(turn, tenant, &mut self.links);
        if end != TurnEnd::GoesOn {
            let working: Vec<_> = (0..).zip(&self.tenants).collect();
            let working: Vec<_> = [Lane::Usual, Lane::Urgent]
                .iter()
                .flat_map(|lane| {
                    let has_work = working.iter().filter(|(_, t)| t.has_work(*lane));
                    has_work.map(|(index, _)| (*index, *lane))
                })
                .collect();
            self.patience.note(turn, &working, self.tenants.len());
        }
        Some(turn)
    }
}

fn lane() -> impl Strategy<Value = Lane> {
    prop_oneof![3 => Just(Lane::Usual), 1 => Just(Lane::Urgent)]
}

proptest! {
    /// Goal: no tenant is starved, whoever comes and goes.
    #[test]
    fn whoever_has_work_has_a_turn_within_a_bound(
        ops in prop::collection::vec(
            (
                (0..8u32, lane(), 1..400u32),
                // Who has something sent out of its turn, and how much.
                prop::option::weighted(0.3, (0..8usize, 0..2_000_000usize)),
                prop::collection::vec((1..40u32, 0..20_000usize), 0..12),
            ),
            1..200,
        ),
    ) {
        let mut world = World::new(8);
        for ((tenant, lane, writes), owed, slices) in ops {
            world.add(tenant, lane, writes);
            if let Some((tenant, bytes)) = owed {
                world.tenants[tenant].owe(bytes);
            }
            for (writes_max, bytes) in slices {
                world.slice(writes_max, bytes);
            }
        }
        while world.slice(32, 200).is_some() {}
        prop_assert!(world.left.values().all(|left| *left == 0), "work is left");
        prop_assert!(world.tenants.iter().all(|tenant| !tenant.is_queued()));
    }
}

#[test]
fn a_small_tenants_news_go_before_a_large_ones_pass_that_is_under_way() {
    let mut world = World::new(2);
    world.add(0, Lane::Usual, 10_000);
    for _ in 0..10 {
        world.slice(32, 200);
    }
    for _ in 0..20 {
        world.add(1, Lane::Usual, 20);
        assert_eq!(world.slice(32, 200).unwrap().index, 1, "at once");
        // It rests, and is fresh again when the other has had its turn.
        for _ in 0..3 {
            world.slice(32, 200);
        }
    }
}

#[test]
fn a_tenant_that_left_its_share_to_others_has_it_at_once() {
    let mut world = World::new(2);
    world.add(0, Lane::Usual, 10_000);
    let mut served = Vec::new();
    for _ in 0..100 {
        world.slice(32, 200);
    }
    world.add(1, Lane::Usual, 110);
    while world.tenants[1].has_work(Lane::Usual) {
        served.push(world.slice(32, 200).unwrap().index);
    }
    assert_eq!(served, [1; 4]);
    // It has left nothing since, so it shares.
    world.slice(32, 200);
    world.add(1, Lane::Usual, 110);
    served.clear();
    while world.tenants[1].has_work(Lane::Usual) {
        served.push(world.slice(32, 200).unwrap().index);
    }
    assert!(
        served.iter().filter(|index| **index == 0).count() >= 3,
        "{served:?}"
    );
}

#[test]
fn tenants_that_come_and_go_do_not_keep_a_settled_one_from_its_turn() {
    let mut world = World::new(3);
    world.add(0, Lane::Usual, 10_000);
    world.slice(32, 200);
    let served = |world: &mut World| world.slice(32, 200).unwrap().index;
    let mut turns = Vec::new();
    for _ in 0..20 {
        // Each comes with one write whenever it has none.
        for small in [1, 2] {
            if !world.tenants[small as usize].has_work(Lane::Usual) {
                world.add(small, Lane::Usual, 1);
            }
        }
        turns.push(served(&mut world));
    }
    let large = turns.iter().filter(|index| **index == 0).count();
    // Each of the others has two turns for one of it at most.
    assert!(large >= 4, "{turns:?}");
}

#[test]
fn urgent_work_goes_first_but_for_one_turn_in_five() {
    let mut world = World::new(2);
    world.add(0, Lane::Usual, 10_000);
    world.add(1, Lane::Urgent, 10_000);
    let turns: Vec<_> = (0..10).map(|_| world.slice(100, 200).unwrap()).collect();
    let lanes: Vec<_> = turns.iter().map(|turn| turn.lane).collect();
    let run = [Lane::Urgent; 4];
    assert_eq!(lanes[..4], run);
    assert_eq!(lanes[4], Lane::Usual);
    assert_eq!(lanes[5..9], run);
    assert_eq!(lanes[9], Lane::Usual);
}

#[test]
fn a_tenant_of_small_frames_has_no_more_writes_than_its_share_pays_for() {
    let mut world = World::new(1);
    world.add(0, Lane::Usual, 10_000);
    let mut writes = 10_000;
    world.slice(10_000, 200);
    writes -= world.left[&0];
    assert_eq!(
        i64::from(writes),
        QUANTUM_BYTES.div_euclid(WRITE_BYTES + 200) + 1
    );
}
