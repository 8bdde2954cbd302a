	.amdgcn_target "amdgcn-amd-amdhsa--gfx950"
	.text
	.type	schedule_kernel,@function
schedule_kernel:
	.file	1 "schedule_kernel.py"
	.loc	1 8 0
	s_load_dwordx2 s[2:3], s[0:1], 0x0
	s_load_dwordx8 s[4:11], s[0:1], 0x8
	s_load_dwordx2 s[12:13], s[0:1], 0x28
	s_waitcnt lgkmcnt(0)
	s_branch .LBB0_0
.LBB0_0:
	.loc	1 18 0
	v_and_b32_e32 v1, 3, v0
	s_mov_b64 s[16:17], s[2:3]
	.loc	1 20 0
	v_lshlrev_b32_e32 v2, 2, v1
	v_bfrev_b32_e32 v3, 1
	.loc	1 19 0
	v_cmp_gt_i32_e32 vcc, s9, v1
	.loc	1 20 0
	s_and_b32 s17, s17, 0xffff
	s_mov_b32 s19, 0x27000
	s_mov_b32 s18, 0x7ffffffe
	v_cndmask_b32_e32 v4, v3, v2, vcc
	.loc	1 21 0
	v_add_u32_e32 v2, 4, v2
	v_cndmask_b32_e32 v2, v3, v2, vcc
	.loc	1 20 0
	buffer_load_dword v5, v4, s[16:19], 0 offen
	.loc	1 21 0
	buffer_load_dword v6, v2, s[16:19], 0 offen
	.loc	1 31 0
	v_readfirstlane_b32 s0, v0
	.loc	1 18 0
	v_and_b32_e32 v0, 63, v0
	.loc	1 26 0
	v_bfrev_b32_e32 v2, 0.5
	.loc	1 35 0
	s_and_b32 s0, s0, 0xc0
	.file	2 "standard.py"
	.loc	2 343 0
	v_lshlrev_b32_e32 v7, 2, v0
	.loc	1 18 0
	v_or_b32_e32 v8, s0, v0
	.loc	2 343 0
	v_add_u32_e32 v9, -8, v7
	.loc	1 26 0
	v_bitop3_b32 v2, s0, v2, v0 bitop3:0xc8
	.loc	2 343 0
	v_cmp_gt_u32_e64 s[0:1], 2, v0
	v_sub_u32_e64 v4, v0, 1 clamp
	v_lshlrev_b32_e32 v4, 2, v4
	v_cndmask_b32_e64 v0, v9, v7, s[0:1]
	.loc	1 26 0
	s_lshl_b32 s15, s14, 8
	.loc	1 26 0
	v_lshrrev_b32_e32 v7, 2, v8
	.loc	1 26 0
	v_or_b32_e32 v7, s15, v7
	v_or_b32_e32 v10, 0x80, v7
	v_or_b32_e32 v11, 0xc0, v7
	s_mov_b64 s[12:13], s[6:7]
	.loc	1 30 0
	v_add_u32_e32 v2, 0, v2
	.loc	1 34 0
	s_and_b32 s5, s5, 0xffff
	.loc	1 35 0
	s_and_b32 s13, s13, 0xffff
	s_mov_b32 s14, s18
	.loc	1 23 0
	s_waitcnt vmcnt(0)
	v_sub_u32_e32 v5, v6, v5
	.loc	1 23 0
	v_ashrrev_i32_e32 v6, 31, v5
	v_lshrrev_b32_e32 v6, 28, v6
	.loc	1 23 0
	v_and_b32_e32 v9, 15, v5
	.loc	1 23 0
	v_add_u32_e32 v5, v5, v6
	v_ashrrev_i32_e32 v5, 4, v5
	.loc	1 23 0
	v_cmp_ne_u32_e64 s[0:1], 0, v9
	.loc	1 30 0
	v_lshl_add_u32 v9, v8, 2, 0
	.loc	1 23 0
	s_nop 0
	v_addc_co_u32_e64 v6, s[2:3], 0, v5, s[0:1]
	.loc	2 343 0
	ds_bpermute_b32 v4, v4, v6
	v_cmp_ne_u32_e64 s[2:3], 0, v1
	s_waitcnt lgkmcnt(0)
	s_nop 0
	v_cndmask_b32_e64 v4, 0, v4, s[2:3]
	v_addc_co_u32_e64 v4, s[0:1], v4, v5, s[0:1]
	ds_bpermute_b32 v0, v0, v4
	v_cmp_lt_u32_e64 s[0:1], 1, v1
	.loc	1 26 0
	v_or_b32_e32 v5, 64, v7
	.loc	2 343 0
	s_waitcnt lgkmcnt(0)
	v_cndmask_b32_e64 v0, 0, v0, s[0:1]
	v_add_u32_e32 v0, v4, v0
	.loc	1 28 0
	v_cmp_le_i32_e64 s[0:1], v0, v7
	v_cmp_le_i32_e64 s[2:3], v0, v5
	v_cmp_le_i32_e64 s[6:7], v0, v10
	v_cmp_le_i32_e64 s[10:11], v0, v11
	.loc	1 28 0
	s_and_b64 s[0:1], vcc, s[0:1]
	s_and_b64 s[2:3], vcc, s[2:3]
	s_and_b64 s[6:7], vcc, s[6:7]
	s_and_b64 vcc, vcc, s[10:11]
	.loc	1 29 0
	v_cndmask_b32_e64 v0, 0, 1, s[0:1]
	v_cndmask_b32_e64 v1, 0, 1, s[2:3]
	v_cndmask_b32_e64 v5, 0, 1, vcc
	v_cndmask_b32_e64 v4, 0, 1, s[6:7]
	.loc	2 293 0
	v_mov_b32_dpp v0, v0 quad_perm:[2,3,0,1] row_mask:0xf bank_mask:0xf
	v_mov_b32_dpp v1, v1 quad_perm:[2,3,0,1] row_mask:0xf bank_mask:0xf
	v_mov_b32_dpp v5, v5 quad_perm:[2,3,0,1] row_mask:0xf bank_mask:0xf
	v_mov_b32_dpp v4, v4 quad_perm:[2,3,0,1] row_mask:0xf bank_mask:0xf
	.loc	1 31 0
	v_cndmask_b32_e64 v7, 0, v6, s[0:1]
	.loc	2 263 0
	v_addc_co_u32_e64 v12, s[10:11], 0, v0, s[0:1]
	v_addc_co_u32_e64 v13, s[10:11], 0, v1, s[2:3]
	v_addc_co_u32_e64 v15, s[10:11], 0, v5, vcc
	v_addc_co_u32_e64 v14, s[10:11], 0, v4, s[6:7]
	.loc	2 293 0
	v_mov_b32_e32 v16, v7
	.loc	2 293 0
	v_mov_b32_dpp v12, v12 quad_perm:[1,0,3,2] row_mask:0xf bank_mask:0xf
	v_mov_b32_dpp v13, v13 quad_perm:[1,0,3,2] row_mask:0xf bank_mask:0xf
	v_mov_b32_dpp v15, v15 quad_perm:[1,0,3,2] row_mask:0xf bank_mask:0xf
	.loc	1 31 0
	v_cndmask_b32_e64 v10, 0, v6, s[2:3]
	v_cndmask_b32_e64 v11, 0, v6, s[6:7]
	v_cndmask_b32_e32 v6, 0, v6, vcc
	.loc	2 293 0
	v_mov_b32_dpp v14, v14 quad_perm:[1,0,3,2] row_mask:0xf bank_mask:0xf
	.loc	2 293 0
	v_mov_b32_dpp v16, v16 quad_perm:[2,3,0,1] row_mask:0xf bank_mask:0xf
	.loc	2 263 0
	v_addc_co_u32_e64 v0, s[0:1], v12, v0, s[0:1]
	v_addc_co_u32_e64 v1, s[0:1], v13, v1, s[2:3]
	v_addc_co_u32_e32 v5, vcc, v15, v5, vcc
	v_addc_co_u32_e64 v4, s[0:1], v14, v4, s[6:7]
	.loc	2 263 0
	v_add_u32_e32 v7, v16, v7
	.loc	1 30 0
	ds_write2st64_b32 v2, v0, v1 offset1:1
	ds_write2st64_b32 v2, v4, v5 offset0:2 offset1:3
	.loc	2 293 0
	v_mov_b32_e32 v5, v11
	v_mov_b32_e32 v1, v7
	v_mov_b32_e32 v17, v10
	v_mov_b32_dpp v5, v5 quad_perm:[2,3,0,1] row_mask:0xf bank_mask:0xf
	v_mov_b32_dpp v1, v1 quad_perm:[1,0,3,2] row_mask:0xf bank_mask:0xf
	.loc	2 263 0
	v_add_u32_e32 v5, v5, v11
	v_add_u32_e32 v1, v7, v1
	.loc	2 293 0
	v_mov_b32_e32 v7, v5
	v_mov_b32_dpp v17, v17 quad_perm:[2,3,0,1] row_mask:0xf bank_mask:0xf
	.loc	1 30 0
	s_waitcnt lgkmcnt(0)
	.loc	2 293 0
	v_mov_b32_dpp v7, v7 quad_perm:[1,0,3,2] row_mask:0xf bank_mask:0xf
	.loc	1 30 0
	s_barrier
	ds_read_b32 v0, v9
	.loc	2 263 0
	v_add_u32_e32 v5, v5, v7
	.loc	2 293 0
	v_mov_b32_e32 v7, v6
	.loc	2 263 0
	v_add_u32_e32 v10, v17, v10
	.loc	2 293 0
	v_mov_b32_e32 v4, v10
	v_mov_b32_dpp v7, v7 quad_perm:[2,3,0,1] row_mask:0xf bank_mask:0xf
	.loc	2 263 0
	v_add_u32_e32 v6, v7, v6
	.loc	2 293 0
	v_mov_b32_dpp v4, v4 quad_perm:[1,0,3,2] row_mask:0xf bank_mask:0xf
	v_mov_b32_e32 v7, v6
	.loc	2 263 0
	v_add_u32_e32 v4, v10, v4
	.loc	1 31 0
	s_waitcnt lgkmcnt(0)
	.loc	2 293 0
	v_mov_b32_dpp v7, v7 quad_perm:[1,0,3,2] row_mask:0xf bank_mask:0xf
	.loc	2 263 0
	v_add_u32_e32 v6, v6, v7
	.loc	1 31 0
	s_barrier
	ds_write2st64_b32 v2, v1, v4 offset1:1
	ds_write2st64_b32 v2, v5, v6 offset0:2 offset1:3
	.loc	1 32 0
	v_lshlrev_b32_e32 v1, 2, v0
	.loc	1 30 0
	v_cmp_gt_i32_e32 vcc, s9, v0
	.loc	1 31 0
	s_waitcnt lgkmcnt(0)
	s_barrier
	.loc	1 32 0
	v_cndmask_b32_e32 v1, v3, v1, vcc
	buffer_load_dword v1, v1, s[16:19], 0 offen
	.loc	1 31 0
	ds_read_b32 v5, v9
	.loc	1 26 0
	v_or_b32_e32 v2, s15, v8
	.loc	1 34 0
	v_lshlrev_b32_e32 v4, 2, v2
	.loc	1 33 0
	v_cmp_gt_i32_e64 s[0:1], s8, v2
	.loc	1 34 0
	s_mov_b32 s6, s18
	s_mov_b32 s7, s19
	v_cndmask_b32_e64 v3, v3, v4, s[0:1]
	.loc	1 34 0
	v_cndmask_b32_e32 v0, -1, v0, vcc
	.loc	1 34 0
	buffer_store_dword v0, v3, s[4:7], 0 offen
	.loc	1 31 0
	s_waitcnt lgkmcnt(0)
	v_sub_u32_e32 v0, v2, v5
	.loc	1 32 0
	v_lshlrev_b32_e32 v0, 4, v0
	.loc	1 32 0
	v_cndmask_b32_e32 v0, 0, v0, vcc
	.loc	1 35 0
	s_mov_b32 s15, s19
	.loc	1 32 0
	s_waitcnt vmcnt(1)
	v_add_u32_e32 v0, v0, v1
	.loc	1 35 0
	buffer_store_dword v0, v3, s[12:15], 0 offen
	.loc	1 35 0
	s_endpgm
	.section	.rodata,"a",@progbits
	.amdhsa_kernel schedule_kernel
		.amdhsa_group_segment_fixed_size 0
		.amdhsa_private_segment_fixed_size 0
		.amdhsa_kernarg_size 48
		.amdhsa_user_sgpr_count 14
		.amdhsa_user_sgpr_dispatch_ptr 0
		.amdhsa_user_sgpr_queue_ptr 0
		.amdhsa_user_sgpr_kernarg_segment_ptr 1
		.amdhsa_user_sgpr_dispatch_id 0
		.amdhsa_user_sgpr_kernarg_preload_length 12
		.amdhsa_user_sgpr_kernarg_preload_offset 0
		.amdhsa_user_sgpr_private_segment_size 0
		.amdhsa_uses_dynamic_stack 0
		.amdhsa_enable_private_segment 0
		.amdhsa_system_sgpr_workgroup_id_x 1
		.amdhsa_system_sgpr_workgroup_id_y 0
		.amdhsa_system_sgpr_workgroup_id_z 0
		.amdhsa_system_sgpr_workgroup_info 0
		.amdhsa_system_vgpr_workitem_id 0
		.amdhsa_next_free_vgpr 18
		.amdhsa_next_free_sgpr 20
		.amdhsa_accum_offset 20
		.amdhsa_reserve_vcc 1
		.amdhsa_reserve_xnack_mask 1
		.amdhsa_float_round_mode_32 0
		.amdhsa_float_round_mode_16_64 0
		.amdhsa_float_denorm_mode_32 3
		.amdhsa_float_denorm_mode_16_64 3
		.amdhsa_dx10_clamp 1
		.amdhsa_ieee_mode 1
		.amdhsa_fp16_overflow 0
		.amdhsa_tg_split 0
		.amdhsa_exception_fp_ieee_invalid_op 0
		.amdhsa_exception_fp_denorm_src 0
		.amdhsa_exception_fp_ieee_div_zero 0
		.amdhsa_exception_fp_ieee_overflow 0
		.amdhsa_exception_fp_ieee_underflow 0
		.amdhsa_exception_fp_ieee_inexact 0
		.amdhsa_exception_int_div_zero 0
	.end_amdhsa_kernel
	.text
	.text
	.text
	.amdgpu_metadata
---
amdhsa.kernels:
  - .agpr_count:     0
    .args:
      - .address_space:  global
        .offset:         0
        .size:           8
        .value_kind:     global_buffer
      - .address_space:  global
        .offset:         8
        .size:           8
        .value_kind:     global_buffer
      - .address_space:  global
        .offset:         16
        .size:           8
        .value_kind:     global_buffer
      - .offset:         24
        .size:           4
        .value_kind:     by_value
      - .offset:         28
        .size:           4
        .value_kind:     by_value
      - .address_space:  global
        .offset:         32
        .size:           8
        .value_kind:     global_buffer
      - .address_space:  global
        .offset:         40
        .size:           8
        .value_kind:     global_buffer
    .group_segment_fixed_size: 0
    .kernarg_segment_align: 8
    .kernarg_segment_size: 48
    .max_flat_workgroup_size: 256
    .name:           schedule_kernel
    .private_segment_fixed_size: 0
    .sgpr_count:     26
    .sgpr_spill_count: 0
    .symbol:         schedule_kernel.kd
    .uniform_work_group_size: 1
    .uses_dynamic_stack: false
    .vgpr_count:     18
    .vgpr_spill_count: 0
    .wavefront_size: 64
amdhsa.target:   amdgcn-amd-amdhsa--gfx950
amdhsa.version:
  - 1
  - 2
...
	.end_amdgpu_metadata
